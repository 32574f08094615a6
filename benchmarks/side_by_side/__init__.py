"""Ours, the floor and each peer that can be installed, in one run on the same data.

python -m benchmarks side_by_side [--rounds 3] [--only snapshot:mongodb …] [--profile] [--save]
"""
