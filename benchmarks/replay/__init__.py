"""Searches replayed on a table of trained networks: `make_table` trains it, `compare_samplers` judges samplers on it.

Run the modules from the project's folder, with `benchmarks` on Python's path:

    PYTHONPATH=benchmarks python -m replay.make_table --data DIR --to table.jsonl
"""
