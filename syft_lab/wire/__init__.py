"""The wire: `messages` (the protocol on one page), `codec` (pure), `link` (the transport seam), `zmq_link` (CURVE)."""
