"""templates: the projects that `registry plugin new` copies; docs/plugins.md walks through them."""
