"""What is wasted in anybody's rollouts, and what a selector would have made of them."""
