"""A trained or exported model behind HTTP: `ramstrans serve`. Without torch for exported ones."""
