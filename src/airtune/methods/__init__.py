"""One folder per paper; none imports another. `airllm` is the first."""
