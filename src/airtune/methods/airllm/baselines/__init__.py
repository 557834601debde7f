"""Trained baselines: what a nested adapter stands beside, by peft itself, handed over as the same factors.

| idea                                                     | file               |
|----------------------------------------------------------|--------------------|
| peft's layers put on and taken off, one loop, a sweep    | `training`         |
| LoRA trained directly at one rank                        | `direct`           |
| AdaLoRA down to a total rank                             | `adalora`          |
| a trained adapter cut by its singular values             | `truncation`       |
| a trained adapter in a file                              | `kept`             |
"""
