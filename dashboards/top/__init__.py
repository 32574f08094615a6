"""`cartridge-warp top`: the whole fleet, live on a terminal."""
