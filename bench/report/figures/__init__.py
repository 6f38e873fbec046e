"""The figures of a report, and how a method looks in all of them."""
