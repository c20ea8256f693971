"""What tests of programs and of schedulers need. Nothing here is imported by `import weft`.

`weft.testing.conformance`: the laws, as checks that a new scheduler has to pass.
"""
