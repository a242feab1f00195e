#include "norm/environment.hpp"

#include <cstdio>
#include <cstring>

namespace normkit {

bool read_number(const char* text, const char* suffixes, std::uint64_t most, std::uint64_t& number) {
  const char* at = text;
  number = 0;
  for (; *at >= '0' && *at <= '9'; ++at) {
    const auto digit = static_cast<std::uint64_t>(*at - '0');
    if (number > (most - digit) / 10 || digit > most) return false;
    number = number * 10 + digit;
  }
  if (at == text) return false;
  if (*at == '\0') return true;
  const char* suffix = std::strchr(suffixes, *at);
  if (suffix == nullptr || at[1] != '\0') return false;
  for (const char* step = suffixes; step <= suffix; ++step) {
    if (number > most / 1024) return false;
    number *= 1024;
  }
  return true;
}

std::string quoted(const char* text) {
  constexpr std::size_t longest = 60;
  std::string result = "'";
  for (; *text != '\0' && result.size() < longest; ++text) {
    const auto byte = static_cast<unsigned char>(*text);
    if (byte >= ' ' && byte <= '~') {
      result += *text;
    } else {
      char escape[5];
      std::snprintf(escape, sizeof escape, "\\x%02x", byte);
      result += escape;
    }
  }
  return result + (*text == '\0' ? "'" : "'...");
}

}  // namespace normkit
