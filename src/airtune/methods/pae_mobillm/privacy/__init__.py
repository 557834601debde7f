"""What the server could learn of samples and labels, measured; and defences a device may put before its upload.

| question                                                | file                  |
|---------------------------------------------------------|-----------------------|
| what leaves the device instead of the plain values      | `defences`            |
| clipping and Gaussian noise, and what epsilon they mean | `gaussian`            |
| how much better than chance an attack is                | `leak`                |
| labels by name                                          | `labels`              |
| labels as groups                                        | `partition`           |
| tokens: the nearest of a dictionary                     | `inversion`           |
| words: a linear reader trained on public texts          | `words`               |
| who was in the training set                             | `membership`          |
| all of them, on what came under a defence               | `report`              |

Attacks get what a server sees: samples as decoded, the public backbone, texts of its own. They are lower bounds: what
they fail to find, a better one may.
"""
