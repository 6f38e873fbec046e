"""The contract of methods: what a method receives, declares and yields. Importing this package alone is fast."""
