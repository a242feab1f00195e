// The shape of every plan that reads its data twice: statistics of all pieces of an item (a row, a channel), something
// done once per item, then a second sweep over the pieces.
#pragma once

#include "norm/machine.hpp"
#include "norm/threads.hpp"

namespace normkit {

// Elements of a piece: 16 KB, half of a usual first-level cache.
template <class T>
constexpr Index piece_elements = 16384 / static_cast<Index>(sizeof(T));

// What a member fetches beside its work: a piece of the next item, or none (item -1). Each sweep fetches half of its
// lines: memory is idle while a member computes on what a cache has, and the slower for reading and writing in turns.
struct Next {
  Index item, piece;
};

// first(item, piece, next), finish(item) and second(item, piece, next) for every item; item_bytes: what a sweep over
// one reads.
//
// The second sweep, taken backwards, finds in a second-level cache what the first has read: a member does whole items
// where that holds for them and there are enough for all, and nobody waits. Longer items the team does together, one
// after the other, as long as its caches hold them between them. Few items, or very long ones, are shared out in
// pieces.
template <class First, class Finish, class Second>
void two_sweeps(const Team& team, Index items, Index pieces, Index item_bytes, First&& first, Finish&& finish,
                Second&& second) {
  const bool enough = items % team.size == 0 || items >= 8 * team.size;
  const Index cache = caches().second_level;
  // The k-th of `all` pieces of the next item, as far as there is room for it beside this one.
  const Index piece_bytes = item_bytes / std::max<Index>(pieces, 1);
  const auto next = [&](Index item, Index end, Share mine, Index k) {
    const Index all = mine.end - mine.begin;
    return item + 1 < end && (all + k + 1) * piece_bytes <= cache ? Next{item + 1, mine.begin + k} : Next{-1, 0};
  };
  const auto sweep = [&](Index item, Index end, Share mine, auto&& between) {
    for (Index piece = mine.begin; piece < mine.end; ++piece)
      first(item, piece, next(item, end, mine, piece - mine.begin));
    between();
    for (Index piece = mine.end; piece-- > mine.begin;) second(item, piece, next(item, end, mine, piece - mine.begin));
  };
  if (team.size > 1 && item_bytes > cache / 2 && item_bytes / team.size <= cache && pieces >= team.size) {
    const Share mine = team.share(pieces);
    for (Index item = 0; item < items; ++item)
      sweep(item, items, mine, [&] {
        team.barrier();
        if (item % team.size == team.rank) finish(item);
        team.barrier();
      });
  } else if (enough) {
    const Share mine = team.share(items);
    for (Index item = mine.begin; item < mine.end; ++item) sweep(item, mine.end, {0, pieces}, [&] { finish(item); });
  } else {
    const Share mine = team.share(items * pieces), my_items = team.share(items);
    for (Index i = mine.begin; i < mine.end; ++i) first(i / pieces, i % pieces, Next{-1, 0});
    team.barrier();
    for (Index item = my_items.begin; item < my_items.end; ++item) finish(item);
    team.barrier();
    for (Index i = mine.end; i-- > mine.begin;) second(i / pieces, i % pieces, Next{-1, 0});
  }
}

}  // namespace normkit
