"""The run for real: model, layout, loss, and the modules that cuts put in. Imports torch."""
