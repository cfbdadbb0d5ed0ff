"""registry_ruler: kind `ruler`, a plugin for registry-tool. `plugin` has its hooks."""
