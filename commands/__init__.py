"""The `cartridge-warp` command: starts the other processes and asks them how they are."""
