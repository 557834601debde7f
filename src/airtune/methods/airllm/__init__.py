"""AirLLM (arXiv 2507.11515): ranks for every adapter site, chosen for the channel by PPO and a guided DDIM.

Reading map, equation -> file:

| equations       | idea                                               | file          |
|-----------------|----------------------------------------------------|---------------|
| all, in order   | the main job on one page. START HERE               | `method`      |
| Table II        | settings and presets                               | `config`      |
| -               | settings of model, task and link                   | `workload`    |
| -               | settings out of plain values and text              | `settings`    |
| -               | settings -> parts                                  | `building`    |
| -               | settings, folder, costs: what stages hand on       | `session`     |
| III-A           | parts of the task, H and rho of its batches        | `data`        |
| 1-3             | the stages of training and of the references       | `fine_tuning` |
| 1-3             | fine-tune the nested adapter, try ranks            | `trainee`     |
| 6               | what ranks weigh, before anything is encoded       | `sizes`       |
| 6               | payloads of ranks                                  | `packing`     |
| 7-10            | state, cost, reward, projection                    | `allocation`  |
| IV-A            | the same as an environment to act in               | `environment` |
| 18              | ranks as points of [-1, 1] and back                | `encoding`    |
| -               | the stages of surrogate and policy                 | `learning`    |
| -               | losses predicted from measured ones, searches      | `search/`     |
| 11-19           | PPO, the diffusion refiner, Algorithm 1            | `policy/`     |
| -               | uniform, random, AirLLM                            | `allocators`  |
| 4, 5            | the edge, and what the cloud asks of it            | `roles`       |
| 4-7             | one real round: decide, send, score                | `rounds`      |
| -               | the last stages: send at every SNR, sum up         | `finishing`   |
| Algorithm 1     | `paper` mode: one fine-tuning step per step        | `paper/`      |
| 5-7             | what a link has room for, before any training      | `plan`        |
| -               | LoRA and AdaLoRA by peft, truncation by SVD        | `baselines/`  |
| -               | what studies are made of                           | `cells/`      |

docs/methods/airllm.md maps every symbol to a name and lists every departure from the paper.
"""
