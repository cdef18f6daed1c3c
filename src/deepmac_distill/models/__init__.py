"""Networks: the mask heads, the backbones, CenterNet, and Deep-MAC, which is made of them."""
