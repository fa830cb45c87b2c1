"""Speed and memory of ramstrans beside a lower bound (plain ViT passes) and a conventional implementation.

For developers; see README.md. What users need is in `ramstrans bench`.
"""
