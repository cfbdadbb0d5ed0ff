"""signing: signatures over folders, attestations and inventories, checked offline. Needs the extra `sign`.

dsse: the signed envelope. keys: private and public keys. certificates: chains to a root. bundle: OMS v1.0 bundles.
"""
