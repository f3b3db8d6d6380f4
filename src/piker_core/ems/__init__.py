"""Orders: the gateway that keeps them and the paper engine that fills them."""
