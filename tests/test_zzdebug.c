#include <stdio.h>
#include "support_model.h"
int main(int argc,char**argv){ (void)argc;(void)argv;
  dlora_model *model = test_load_vit(1, NULL);
  const int64_t c[12]={10,11,20,21,30,31,40,41,50,51,60,61};
  for (int rel=0; rel<5; rel++) { if(rel==3) continue;
  dlora_learner_options o = test_quick_options(); o.relevance=rel; o.learning_rate=1e-2f; o.frozen_baseline=1;
  dlora_learner *l=test_learner(model,&o);
  for (int t=0;t<3;t++){ dlora_task_report r=DLORA_TASK_REPORT_INIT; test_learn(l,c+2*t,2,20,(uint32_t)t,&r);
   printf("rel %d task %d loss %g -> %g mem %zu..%zu rank %zu..%zu steps %zu  %.3f %.3f %.3f\n",rel,t,r.first_loss,r.last_loss,r.memory_min,r.memory_max,r.rank_orthogonal_min,r.rank_orthogonal_max,r.num_steps,r.seconds_observe,r.seconds_train,r.seconds_statistics);}
  struct test_pictures p=test_pictures(c,6,30,77);
  dlora_evaluation e=DLORA_EVALUATION_INIT; dlora_image_source s=test_source_of(&p);
  dlora_learner_evaluate(l,&s,&e); printf("acc %g task %g given %g ece %g frozen %g\n",e.accuracy,e.task_accuracy,e.accuracy_given_task,e.ece,e.frozen_accuracy);
  dlora_learner_destroy(l); test_pictures_free(&p);} 
  dlora_model_destroy(model); return 0;}
