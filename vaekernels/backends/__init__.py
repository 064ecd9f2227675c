"""What runs an op: plain PyTorch, the compiled extension or Triton, and the choice between them."""
