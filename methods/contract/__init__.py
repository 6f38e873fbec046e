"""The contract of methods: what a method is given, declares and yields. Importing this package loads nothing heavy."""
