"""What the benches of network and pipeline share: inputs, a sender, peers, accounts."""
