"""What tests of this project and of any connector need: contracts, fakes, real servers."""
