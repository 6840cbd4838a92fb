"""The harness behind benchmarks/run.py: catalog (what is run), machine (where), measure (one run), venv (applications and peers), plan (how long), tables (what it says)."""
