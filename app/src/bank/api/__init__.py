"""What the interfaces for programs share: operations that describe themselves, and their OpenAPI document."""
