"""What every part of the harness says: errors that users can mend, and how numbers are written."""
