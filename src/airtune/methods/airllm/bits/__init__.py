"""Bits against loss: one trained adaptation, sent in every way that is known, each as bits and what the receiver holds.

| file          | ways to send                                                                               |
|---------------|--------------------------------------------------------------------------------------------|
| `candidate`   | START: what a way to send is, and its loss                                                 |
| `grid`        | the uniform grid on LoRA trained at each rank; LoRA cut by singular values; format 1        |
| `ternary`     | the largest entries' signs with one size for all, their places entropy-coded               |
| `whole`       | fine-tuning of all weights, its change at a few bits a number                              |
| `ours`        | format 2 at many prices of a bit                                                           |
| `cores`       | format 2 on cores between bases that the receiver derives from its base model               |
| `families`    | all of these, scored on dev; ours trained on through their rounding                         |
| `front`       | the best within a budget, the front of all, and the bits that one front saves over another |

Knows codecs and numbers; not cells or studies.
"""
