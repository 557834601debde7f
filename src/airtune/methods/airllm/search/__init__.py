"""Losses predicted from measured ones, what to measure next, and the allocators that search.

| idea                                                     | file               |
|----------------------------------------------------------|--------------------|
| losses of allocations from measured ones. START HERE     | `surrogate`        |
| the regression behind it                                 | `gaussian_process` |
| what gradients say directions are worth, added up        | `direction_gains`  |
| first allocations worth measuring                        | `probes`           |
| what was measured                                        | `archive`          |
| which one next                                           | `acquisition`      |
| rank vectors, what they weigh, their neighbours          | `space`            |
| elimination, filling, exchange on predicted losses       | `moves`            |
| greedy and forward greedy                                | `greedy`           |
| random search, a table by SNR                            | `lookup`           |
| every vector tried, where that is possible               | `oracle`           |
"""
