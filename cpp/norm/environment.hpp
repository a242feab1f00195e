// Numbers in environment variables: digits, and nothing else but a suffix where one is allowed.
#pragma once

#include <cstdint>
#include <string>

namespace normkit {

// Reads "512" and, with suffixes "KMGT", "512K" to "512T" (powers of 1024). False for anything else, and for what
// exceeds `most`: signs, spaces, points, exponents and other bases are refused, not guessed at.
bool read_number(const char* text, const char* suffixes, std::uint64_t most, std::uint64_t& number);

// The text in quotes for a message, whatever bytes it has and however long it is.
std::string quoted(const char* text);

}  // namespace normkit
