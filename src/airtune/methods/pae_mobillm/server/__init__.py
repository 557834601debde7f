"""The server: keeps what devices sent, trains the side network on it, hands out its weights.

Reading map: `role` answers messages -> `binding` holds them to what was agreed -> `cache` keeps samples: cut into rows
by `layout`, all of them on `disk`, in one `database`, the latest in `memory` -> `training` trains on them ->
`checkpoint` keeps what was trained.
"""
