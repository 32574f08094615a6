/* Lease, fence, marker and resync once more, for Spin: the same small world as in lease_model.py.

   Written apart from it, with the same steps under the same names, so that a slip in one of the two
   shows: both must find the same number of states, the same verdicts and ways as short.

     -DWITHOUT_X    the guard X of the model's Rules is gone
     -DLIVE         faults end at some time; then a batch lands within four leases

   Bounds of the world, as in the model: -DCLOCK -DBATCHES -DFENCE -DWIPES -DSTEPS_BACK -DRESYNCS */

#ifndef CLOCK
#define CLOCK 2
#define BATCHES 1
#define FENCE 5
#define WIPES 1
#define STEPS_BACK 1
#define RESYNCS 1
#endif

#define TTL 2
#define PER_TICK 2
#define NOBODY 2

#ifdef WITHOUT_WRITE_CHECKS_FENCE
#define write_checks_fence 0
#else
#define write_checks_fence 1
#endif
#ifdef WITHOUT_WRITE_CHECKS_BATCH
#define write_checks_batch 0
#else
#define write_checks_batch 1
#endif
#ifdef WITHOUT_OPEN_CHECKS_FENCE
#define open_checks_fence 0
#else
#define open_checks_fence 1
#endif
#ifdef WITHOUT_OPEN_REFUSES_ITS_EQUAL
#define open_refuses_its_equal 0
#else
#define open_refuses_its_equal 1
#endif
#ifdef WITHOUT_OPEN_RAISES_FENCE
#define open_raises_fence 0
#else
#define open_raises_fence 1
#endif
#ifdef WITHOUT_RESYNC_RAISES_FENCE
#define resync_raises_fence 0
#else
#define resync_raises_fence 1
#endif
#ifdef WITHOUT_READS_THE_MARKER_WHEN_UNSURE
#define reads_the_marker_when_unsure 0
#else
#define reads_the_marker_when_unsure 1
#endif
#ifdef WITHOUT_REFENCES
#define refences 0
#else
#define refences 1
#endif
#ifdef WITHOUT_REFENCE_CHECKS_OWNER
#define refence_checks_owner 0
#else
#define refence_checks_owner 1
#endif
#ifdef WITHOUT_RENEW_CHECKS_OWNER
#define renew_checks_owner 0
#else
#define renew_checks_owner 1
#endif
#ifdef WITHOUT_CLAIMS_ONLY_WHAT_IS_FREE
#define claims_only_what_is_free 0
#else
#define claims_only_what_is_free 1
#endif
#ifdef WITHOUT_FENCES_GROW
#define fences_grow 0
#else
#define fences_grow 1
#endif
#ifdef WITHOUT_FENCES_FOLLOW_THE_CLOCK
#define fences_follow_the_clock 0
#else
#define fences_follow_the_clock 1
#endif

/* a worker's phase */
#define IDLE 0
#define CLAIMED 1
#define HELD 2
#define UNSURE 3

#define MAX(a, b) ((a) > (b) -> (a) : (b))

/* ---- Redis */
byte clock;
bool known;                 /* due or leased */
byte lease_owner = NOBODY;  /* of a lease that is not there, the rest is 0 */
byte lease_expiry;
byte lease_fence;
byte issued;                /* the last fence that Redis remembers */

/* ---- the unit's row of sync_markers */
byte stored_fence;
byte stored_batch;
byte stored_position;
byte stored_epoch;

/* ---- what a worker believes; since it opened the unit, but for the fence */
typedef Worker {
  byte phase;
  byte fence;
  byte batch;
  byte position;
  byte epoch
};
Worker w[2];

byte owner = NOBODY;        /* who opened the unit last and was not shut out since: nobody checks it */
byte wipes;
byte steps_back;
byte resyncs;

#ifdef LIVE
bool calm;                  /* no more faults, and no more time passes but for leases of the dead */
bool moved;                 /* a batch has landed since */
byte leases;                /* handed out since */
#define faulty (!calm)
#define patient (leases < 4)
#define TRIES(me) (calm -> !moved : w[me].position < BATCHES)
#else
#define faulty true
#define TRIES(me) (w[me].position < BATCHES)
#endif

#define NEXT_FENCE (fences_follow_the_clock -> MAX((fences_grow -> issued + 1 : 1), clock * PER_TICK) : (fences_grow -> issued + 1 : 1))
#define REFENCED(me) (fences_follow_the_clock -> MAX(MAX(w[me].fence, stored_fence) + 1, clock * PER_TICK) : MAX(w[me].fence, stored_fence) + 1)
#define HOLDS(me) (lease_owner == me && lease_fence == w[me].fence)
#define MAY_REFENCE(me) (refences && (!refence_checks_owner || HOLDS(me)))
#define BEHIND(me) (open_checks_fence && (w[me].fence < stored_fence || (open_refuses_its_equal && w[me].fence == stored_fence)))
#define ALLOWED(me) ((!write_checks_fence || stored_fence == w[me].fence) && (!write_checks_batch || stored_batch == w[me].batch))

inline set_free() { lease_owner = NOBODY; lease_expiry = 0; lease_fence = 0 }

inline sweep() {            /* a lease that ran out is free */
  if
  :: lease_owner != NOBODY && lease_expiry <= clock -> set_free()
  :: else
  fi
}

inline drop(me) { w[me].phase = IDLE; w[me].fence = 0; w[me].batch = 0; w[me].position = 0; w[me].epoch = 0 }

inline further(me) { w[me].phase = HELD; w[me].batch++; w[me].position++ }

inline land(me) {           /* the transaction commits; here is where a guarantee would break */
  assert(w[me].epoch == stored_epoch);        /* else: goes on from before a resync */
  assert(w[me].position >= stored_position);  /* else: a batch lands twice */
  assert(w[me].position <= stored_position);  /* else: a batch is passed by */
  assert(owner == me);                        /* else: a superseded worker writes */
  stored_batch = w[me].batch + 1;
  stored_position = w[me].position + 1
#ifdef LIVE
  ;
  moved = calm
#endif
}

#define me _pid

active [2] proctype Works() {
  do
  /* ---- claim.lua */
#ifdef LIVE
  :: d_step { w[me].phase == IDLE && !moved && (calm -> patient : NEXT_FENCE <= FENCE) ->
#else
  :: d_step { w[me].phase == IDLE && NEXT_FENCE <= FENCE ->
#endif
       printf("claim(%c)\n", 'A' + me);
       sweep();
       if
       :: known && (lease_owner == NOBODY || !claims_only_what_is_free) ->
          issued = NEXT_FENCE;
          lease_owner = me; lease_expiry = clock + TTL; lease_fence = issued;
          w[me].phase = CLAIMED; w[me].fence = issued
#ifdef LIVE
          ;
          leases = leases + calm
#endif
       :: else
       fi }

  /* ---- adopt_marker.sql, and refence.lua where it finds itself behind */
  :: d_step { w[me].phase == CLAIMED && (!BEHIND(me) || !MAY_REFENCE(me) || !faulty || REFENCED(me) <= FENCE) ->
       printf("open(%c)\n", 'A' + me);
       if
       :: BEHIND(me) ->
          if
          :: MAY_REFENCE(me) ->
             issued = REFENCED(me);
             w[me].fence = issued;
             if
             :: lease_owner != NOBODY -> lease_fence = issued
             :: else
             fi
          :: else -> drop(me)
          fi
       :: else ->
          stored_fence = (open_raises_fence -> w[me].fence : stored_fence);
          owner = me;
          w[me].phase = HELD;
          w[me].fence = stored_fence;
          w[me].batch = stored_batch;
          w[me].position = stored_position;
          w[me].epoch = stored_epoch
       fi }

  /* ---- advance_marker.sql and COMMIT */
  :: d_step { w[me].phase == HELD && TRIES(me) ->
       printf("write_batch(%c)\n", 'A' + me);
       if
       :: ALLOWED(me) -> land(me); further(me)
       :: else -> drop(me)
       fi }
  :: d_step { faulty && w[me].phase == HELD && w[me].position < BATCHES ->
       printf("write_batch, answer lost(%c)\n", 'A' + me);
       if
       :: ALLOWED(me) -> land(me); w[me].phase = UNSURE
       :: else -> drop(me)
       fi }
  :: d_step { faulty && w[me].phase == HELD && w[me].position < BATCHES ->
       printf("write_batch, request lost(%c)\n", 'A' + me);
       w[me].phase = UNSURE }
  :: d_step { faulty && w[me].phase == HELD && w[me].position < BATCHES ->
       printf("write_batch, COMMIT lost(%c)\n", 'A' + me);
       if
       :: ALLOWED(me) -> w[me].phase = UNSURE
       :: else -> drop(me)
       fi }

  /* ---- read_marker.sql */
  :: d_step { w[me].phase == UNSURE ->
       printf("read_marker(%c)\n", 'A' + me);
       if
       :: !reads_the_marker_when_unsure -> further(me)
       :: else ->
          if
          :: stored_fence != w[me].fence -> drop(me)
          :: else ->
             if
             :: stored_batch == w[me].batch + 1 -> further(me)
             :: else -> w[me].phase = HELD
             fi
          fi
       fi }

  /* ---- renew.lua, release.lua, kill -9 */
  :: d_step { faulty && w[me].phase != IDLE ->
       printf("renew(%c)\n", 'A' + me);
       if
       :: lease_owner != NOBODY && (HOLDS(me) || !renew_checks_owner) -> lease_expiry = clock + TTL
       :: else -> sweep(); drop(me)
       fi }
  :: d_step { faulty && w[me].phase == HELD ->
       printf("release(%c)\n", 'A' + me);
       if
       :: HOLDS(me) -> set_free()
       :: else
       fi;
       drop(me) }
  :: d_step { faulty && w[me].phase != IDLE ->
       printf("crash(%c)\n", 'A' + me);
       drop(me) }
  od
}

active proctype World() {
  do
  :: d_step { faulty && clock < CLOCK -> printf("tick\n"); clock++ }
  :: d_step { !known -> printf("ensure\n"); known = true }
  :: d_step { faulty && wipes < WIPES ->
       printf("flushall\n");
       known = false; set_free(); issued = 0; wipes++ }
  :: d_step { faulty && steps_back < STEPS_BACK && clock > 0 ->
       printf("set_clock_back\n");
       clock--; steps_back++ }
  /* resync_stream.sql */
  :: d_step { faulty && resyncs < RESYNCS && stored_position > 0 && stored_fence + resync_raises_fence <= FENCE ->
       printf("resync\n");
       stored_fence = stored_fence + resync_raises_fence;
       stored_position = 0; stored_epoch++;
       owner = NOBODY; resyncs++ }
#ifdef LIVE
  :: d_step { !calm && stored_position < BATCHES -> printf("no more faults\n"); calm = true }
  /* Who lives and knows of its lease renews it. */
  :: d_step { calm && lease_owner != NOBODY && lease_fence != w[lease_owner].fence ->
       printf("the lease of nobody runs out\n");
       set_free() }
#endif
  od
}

#ifdef LIVE
ltl live { [] (calm -> <> moved) }
#endif
