"""Help for who adds a method, network, dataset or paper."""
