"""From networks and inputs to comparisons: training, layers, activations, measures, figures. Knows the floors below."""
