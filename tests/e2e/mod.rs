//! A real gateway process, a scripted MCP server behind it, and a client that writes raw bytes.

mod first_light;
