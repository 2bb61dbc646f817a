"""The same records through observe and through what others would use: python -m tests.benchmarks.rivals"""
