"""What a method works on, by its settings: base model, task and link, opened; and how settings are read at all.

Reading map: `settings` makes validated dataclasses of plain values and text -> `presets` reads them from TOML and lays
overrides over them -> `config` has the groups that every method shares -> `opening` opens task and model -> `parts` has
the task's parts as token batches, and how complex they are.
"""
