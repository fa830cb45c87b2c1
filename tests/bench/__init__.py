"""Tests of the benchmark; none asserts on wall-clock time."""
