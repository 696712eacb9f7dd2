"""From a trained run to its numbers: encoding, all pairs, protocols, results."""
