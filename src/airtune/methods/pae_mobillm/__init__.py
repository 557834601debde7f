"""PAE MobiLLM (Yang et al. 2507.01216): a device fine-tunes with a server's help and sends each sample once.

The device runs its frozen backbone, keeps its labels, and sends of every sample the hidden states at the pivot token
and the difference between target and prediction. The server caches them and trains a side network on what it has
cached; the device adds that network's output to its own prediction. Reading map:

| step of docs/methods/pae_mobillm.md   | file                                                             |
|---------------------------------------|------------------------------------------------------------------|
| all of it, in order                   | `method`: START                                                  |
| settings                              | `config`                                                         |
| what both sides must share            | `identity`                                                       |
| what a sample weighs on the wire      | `wire`                                                           |
| the side network                      | `side`                                                           |
| device: hidden states at the pivot    | `device/pivots`                                                  |
| device: target less prediction        | `device/differences`                                             |
| device: which layers, how many bits   | `device/choice`, `device/layers`                                 |
| device: upload once, infer            | `device/device`, `device/asking`, `device/upload`, `device/flops` |
| server: cache, training, messages     | `server/cache`, `server/training`, `server/role`                 |
| what leaks, and defences              | `privacy/`, `leaks`                                              |
| other ways: LoRA, split learning      | `rivals/`; their bytes by formula `costs`, peak memory `peaks`   |
| cells of studies                      | `cells/`                                                         |
"""
