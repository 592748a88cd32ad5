"""The process that `bench.py` hands series to: `python -m tests.fuzz.subject`.

Decoders start processes of their own, which import this module anew: it imports nothing by itself.
"""

if __name__ == "__main__":
    from tests.fuzz.verdict import main

    main()
