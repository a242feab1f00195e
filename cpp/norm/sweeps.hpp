// The shape of every plan that reads its data twice: statistics of all pieces of an item (a row, a channel), something
// done once per item, then a second sweep over the pieces.
#pragma once

#include "norm/threads.hpp"

namespace normkit {

// Elements of a piece: 16 KB, half of a usual first-level cache.
template <class T>
constexpr Index piece_elements = 16384 / static_cast<Index>(sizeof(T));

// first(item, piece), finish(item), second(item, piece) for every item. With items enough for all, a member does whole
// items, whose pieces are still in its cache at the second sweep (taken backwards), and nobody waits. Otherwise the
// pieces of all items are shared out.
template <class First, class Finish, class Second>
void two_sweeps(const Team& team, Index items, Index pieces, First&& first, Finish&& finish, Second&& second) {
  if (items % team.size == 0 || items >= 8 * team.size) {
    const Share mine = team.share(items);
    for (Index item = mine.begin; item < mine.end; ++item) {
      for (Index piece = 0; piece < pieces; ++piece) first(item, piece);
      finish(item);
      for (Index piece = pieces; piece-- > 0;) second(item, piece);
    }
  } else {
    const Share mine = team.share(items * pieces), my_items = team.share(items);
    for (Index i = mine.begin; i < mine.end; ++i) first(i / pieces, i % pieces);
    team.barrier();
    for (Index item = my_items.begin; item < my_items.end; ++item) finish(item);
    team.barrier();
    for (Index i = mine.end; i-- > mine.begin;) second(i / pieces, i % pieces);
  }
}

}  // namespace normkit
