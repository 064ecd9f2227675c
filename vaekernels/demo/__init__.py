"""The demonstration: train on real digits, show what came out and what it gained."""
