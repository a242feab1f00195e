// The shape of every plan that reads its data twice: statistics of all pieces of an item (a row, a channel), something
// done once per item, then a second sweep over the pieces.
#pragma once

#include "norm/machine.hpp"
#include "norm/threads.hpp"

namespace normkit {

// Elements of a piece: 16 KB, half of a usual first-level cache.
template <class T>
constexpr Index piece_elements = 16384 / static_cast<Index>(sizeof(T));

// What a member fetches beside its work, or nothing (item -1): the first sweep the piece that comes next, the second,
// which leaves the memory idle for reading, a piece of the next items where its cache holds as much. They come where
// the sweep is done; what they drive out lies in the next cache, nearer than memory still.
struct Next {
  Index item, piece;
};

// first(items, piece, next), finish(item) and second(items, piece, next) for every item; item_bytes: what a sweep over
// one reads; together: how many items that are neighbours in memory are taken at once where a member does whole ones.
//
// The second sweep, taken backwards, finds in a second-level cache what the first has read: a member does whole items
// where that has room for one and there are enough for all, and nobody waits. Longer items the team does together, one
// after the other, as long as its caches hold them between them. Few items, or very long ones, are shared out in
// pieces.
template <class First, class Finish, class Second>
void two_sweeps(const Team& team, Index items, Index together, Index pieces, Index item_bytes, First&& first,
                Finish&& finish, Second&& second) {
  const bool enough = items % team.size == 0 || items >= 8 * team.size;
  const Index cache = caches().second_level;
  const auto sweep = [&](Share some, Index end, Share mine, auto&& between) {
    const Index bytes = (some.end - some.begin) * item_bytes * (mine.end - mine.begin) / pieces;
    const bool room = some.end < end && bytes <= cache;
    for (Index piece = mine.begin; piece < mine.end; ++piece)
      first(some, piece, piece + 1 < mine.end ? Next{some.begin, piece + 1} : Next{-1, 0});
    between();
    for (Index piece = mine.end; piece-- > mine.begin;) second(some, piece, room ? Next{some.end, piece} : Next{-1, 0});
  };
  if (team.size > 1 && item_bytes > cache && item_bytes / team.size <= cache && pieces >= team.size) {
    const Share mine = team.share(pieces);
    for (Index item = 0; item < items; ++item)
      sweep({item, item + 1}, items, mine, [&] {
        team.barrier();
        if (item % team.size == team.rank) finish(item);
        team.barrier();
      });
  } else if (enough) {
    const Share mine = team.share(items);
    for (Index item = mine.begin; item < mine.end; item += together) {
      const Share some{item, std::min(item + together, mine.end)};
      sweep(some, mine.end, {0, pieces}, [&] {
        for (Index i = some.begin; i < some.end; ++i) finish(i);
      });
    }
  } else {
    const Share mine = team.share(items * pieces), my_items = team.share(items);
    const auto alone = [&](Index i, bool fetches, auto&& body) {
      const Index item = i / pieces, piece = i % pieces;
      body(Share{item, item + 1}, piece, fetches && piece + 1 < pieces ? Next{item, piece + 1} : Next{-1, 0});
    };
    for (Index i = mine.begin; i < mine.end; ++i) alone(i, true, first);
    team.barrier();
    for (Index item = my_items.begin; item < my_items.end; ++item) finish(item);
    team.barrier();
    for (Index i = mine.end; i-- > mine.begin;) alone(i, false, second);
  }
}

}  // namespace normkit
