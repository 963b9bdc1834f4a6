"""What executes a Core ML package. `portable` does so on any machine; a record names the runtime it was made with.

This module must import none of them: each needs libraries that are heavy, or that one machine has and another has not.
"""
