"""weft beside its rivals: the same work, the same run. Start with `python benches/run.py` and README.md."""
