"""AirLLM (arXiv 2507.11515): ranks for every adapter site, chosen for the channel by PPO and a guided DDIM.

Reading map, equation -> file:

| equations       | idea                                               | file          |
|-----------------|----------------------------------------------------|---------------|
| all, in order   | the main job on one page. START HERE               | `method`      |
| Table II        | settings and presets                               | `config`      |
| -               | settings out of plain values and text              | `settings`    |
| -               | settings -> parts                                  | `building`    |
| III-A           | parts of the task, H and rho of its batches        | `data`        |
| 1-3             | fine-tune the nested adapter, try ranks            | `trainee`     |
| 6               | what ranks weigh, before and after encoding        | `packing`     |
| 7-10            | state, cost, reward, projection, environment       | `allocation`  |
| -               | losses predicted from measured ones                | `surrogate`   |
| 11-12           | PPO over the coarse latent or discrete heads       | `coarse`      |
| 13, 14          | diffusion: schedules, forward process              | `diffusion`   |
| 16, 17          | sampling by DDPM and by DDIM                       | `sampling`    |
| 15              | the denoiser and its guidance                      | `denoiser`    |
| Table II        | the other backbone, a 1-D U-Net                    | `unet`        |
| 18              | ranks as points of [-1, 1] and back                | `encoding`    |
| 19              | what the denoiser learns from                      | `objective`   |
| -               | what an action is worth, learned                   | `critic`      |
| 15-19           | the refiner: sampled and trained                   | `refine`      |
| -               | better targets for the refiner                     | `improve`     |
| Algorithm 1     | rollouts: refine, execute, remember                | `rollouts`    |
| Algorithm 1     | PPO and refiner by turns                           | `policy`      |
| -               | uniform, random, greedy, AirLLM                    | `allocators`  |
| 4, 5            | the edge, and what the cloud asks of it            | `roles`       |
| 4-7             | one real round: decide, send, score                | `rounds`      |
| 17              | the sampler again, made for deciding fast          | `fast_sampling` |
| -               | what studies are made of                           | `cells/`      |

docs/methods/airllm.md maps every symbol to a name and lists every departure from the paper.
"""
