//! Where a home's tasks were spawned. Most come from few places, so each place stands here once, and a task has its number.
//!
//! True whenever no method runs:
//!   1. A place is kept, with its reference to the code object, while a task counts on it, and after that as long as it is the last one noted.
//!   2. `known` leads to each place that is kept, and to no other.
//!
//! Used in the home's thread, attached, like the tasks.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::ffi::{c_int, c_void};

use crate::ffi::{PyObject, c};
use crate::origin::Origin;

/// The number of a place. Zero is none: not known, or one too many.
pub type Site = u16;

pub struct Sites {
    places: RefCell<Places>,
    /// The number of the place that was noted last.
    last: Cell<Site>,
}

#[derive(Default)]
struct Places {
    /// Number 1 is the first.
    all: Vec<Place>,
    known: HashMap<(*mut PyObject, c_int), Site>,
    unused: Vec<Site>,
}

struct Place {
    origin: Origin,
    tasks: usize,
}

impl Places {
    fn at(&mut self, site: Site) -> Option<&mut Place> {
        usize::from(site).checked_sub(1).and_then(|index| self.all.get_mut(index))
    }

    /// The number of a place, which is noted if it was not. `Err`: there are too many.
    fn find(&mut self, origin: Origin) -> Result<(Site, Option<Origin>), Origin> {
        if let Some(known) = self.known.get(&origin.parts()) {
            return Ok((*known, Some(origin)));
        }
        let place = Place { origin, tasks: 0 };
        let site = match self.unused.pop() {
            Some(site) => {
                self.all[usize::from(site) - 1] = place;
                site
            }
            None => {
                let Ok(site) = Site::try_from(self.all.len() + 1) else {
                    return Err(origin);
                };
                self.all.push(place);
                site
            }
        };
        self.known.insert(origin.parts(), site);
        Ok((site, None))
    }

    /// Forgets a place that no task counts on. Its reference is the caller's.
    fn remove(&mut self, site: Site) -> Option<Origin> {
        let place = self.at(site)?;
        if place.tasks > 0 {
            return None;
        }
        let origin = std::mem::replace(&mut place.origin, Origin::UNKNOWN);
        self.known.remove(&origin.parts());
        self.unused.push(site);
        Some(origin)
    }
}

impl Sites {
    pub fn new() -> Self {
        Self { places: RefCell::default(), last: Cell::new(0) }
    }

    /// The number of a place for one more task. Takes over the origin's reference.
    #[inline]
    pub fn enter(&self, mut origin: Origin) -> Site {
        let last = self.last.get();
        if let Some(place) = self.places.borrow_mut().at(last)
            && place.origin.parts() == origin.parts()
        {
            place.tasks += 1;
            // The place has a reference of its own: this is not the last.
            origin.forget();
            return last;
        }
        self.enter_another(origin)
    }

    #[cold]
    fn enter_another(&self, origin: Origin) -> Site {
        if origin.is_unknown() {
            return 0;
        }
        let (site, unused) = {
            let mut places = self.places.borrow_mut();
            match places.find(origin) {
                Ok((site, unused)) => {
                    places.all[usize::from(site) - 1].tasks += 1;
                    let before = self.last.replace(site);
                    (site, [unused, places.remove(before)])
                }
                Err(origin) => (0, [Some(origin), None]),
            }
        };
        unused.into_iter().flatten().for_each(|mut origin| origin.forget());
        site
    }

    /// A task that had this number is gone.
    #[inline]
    pub fn leave(&self, site: Site) {
        let unused = {
            let mut places = self.places.borrow_mut();
            let Some(place) = places.at(site) else {
                return;
            };
            place.tasks -= 1;
            if place.tasks > 0 || self.last.get() == site { None } else { places.remove(site) }
        };
        if let Some(mut origin) = unused {
            origin.forget();
        }
    }

    /// It shares the reference.
    pub fn origin(&self, site: Site) -> Origin {
        self.places.borrow_mut().at(site).map_or(Origin::UNKNOWN, |place| place.origin)
    }

    /// # Safety
    /// From `tp_traverse`.
    pub unsafe fn traverse(&self, visit: c::visitproc, argument: *mut c_void) -> c_int {
        // A collection cannot begin while the places are borrowed: nothing of the interpreter's is called then.
        for place in &self.places.borrow().all {
            // SAFETY: the caller's promise.
            let stop = unsafe { place.origin.traverse(visit, argument) };
            if stop != 0 {
                return stop;
            }
        }
        0
    }
}

impl Drop for Sites {
    fn drop(&mut self) {
        let places = self.places.take();
        places.all.into_iter().for_each(|mut place| place.origin.forget());
    }
}
