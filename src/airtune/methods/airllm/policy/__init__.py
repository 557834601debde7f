"""The policy: PPO's coarse action, refined by a conditional diffusion, trained by turns; and how it travels.

| equations      | idea                                          | file            |
|----------------|-----------------------------------------------|-----------------|
| Algorithm 1    | PPO and refiner by turns. START HERE          | `training`      |
| Tables II, III | its settings                                  | `settings`      |
| Algorithm 1    | rollouts: refine, execute, remember           | `rollouts`      |
| 11-12          | what PPO decides: latent, discrete heads      | `priors`        |
| 11-12          | PPO over a prior                              | `coarse`        |
| 13, 14         | diffusion: schedules, forward process         | `diffusion`     |
| 15             | the denoiser and its guidance                 | `denoiser`      |
| Table II       | the other backbone, a 1-D U-Net               | `unet`          |
| 16, 17         | sampling by DDPM and by DDIM, with gradient   | `sampling`      |
| 17             | the same sampler, made for deciding fast      | `fast_sampling` |
| 15-19          | the refiner: sampled and trained              | `refine`        |
| 19             | what the denoiser learns from                 | `objective`     |
| 19             | what an action is worth, learned              | `critic`        |
| 19             | better actions to learn from                  | `improve`       |
| 11, 15, 17     | a trained policy taken apart into arrays      | `freeze`        |
| 11, 15, 17     | and deciding by them in plain numpy           | `frozen`        |
| -              | the same on disk, with what it is for         | `saved`         |
| -              | one decision by it                            | `decide`        |
"""
