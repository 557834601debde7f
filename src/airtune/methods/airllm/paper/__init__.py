"""`paper` mode: Algorithm 1, one fine-tuning step per environment step; adapter and policy learn together.

| idea                                                         | file           |
|--------------------------------------------------------------|----------------|
| the run in the paper's order. START HERE                     | `run`          |
| its settings: T_env, evaluations, the paper's count          | `settings`     |
| the stage that trains: environment, learner and agent        | `learn`        |
| a try of ranks that is one optimiser step                    | `stepping`     |
| the same for AdaLoRA, which chooses its ranks itself         | `adaptive`     |
| an episode of Algorithm 1: PPO and the refiner by turns      | `algorithm`    |
| an episode of ranks that nobody learns                       | `rivals`       |
| evaluations on dev, and when to stop                         | `stopping`     |
| episode after episode, until the end or the stop             | `training`     |
| everything that training changes, in one file                | `checkpoint`   |
"""
